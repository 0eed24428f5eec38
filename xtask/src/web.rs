//! `web`: the page of runtime/web with the core and the shipped models inside, served.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use waft::Model;
use waft_host::shipped;

use crate::args::write_whole;
use crate::repository::root;
use crate::setup;

/// Builds the page that draws in a browser, and serves it.
///
/// The page is one file, target/web/index.html: it works from a folder and from any server of files as well.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where it is served: 0.0.0.0:8000 shows it to a phone in the same network.
    #[arg(long, default_value = "127.0.0.1:8000")]
    address: String,
    /// Only builds the page.
    #[arg(long)]
    build: bool,
}

const TARGET: &str = "wasm32-unknown-unknown";

/// What of the page's source stands for what is put inside.
const STYLE: &str = "<link rel=\"stylesheet\" href=\"style.css\">";
const SCRIPT: &str = "<script src=\"app.js\"></script>";

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let page = page()?;
    let path = root().join("target").join("web").join("index.html");
    write_whole(&path, page.as_bytes())?;
    println!("{} ({} bytes)", path.display(), page.len());
    if args.build { Ok(()) } else { serve(&args.address, &page) }
}

/// The page: core, models, style and script in one file.
pub(crate) fn page() -> anyhow::Result<String> {
    let source = root().join("runtime").join("web");
    let read = |name: &str| {
        let path = source.join("page").join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let core = STANDARD.encode(std::fs::read(core()?)?);
    let mut models = Map::new();
    for name in shipped::names() {
        let bytes = shipped::find(&name, None, None, &())?;
        // The page shows pictures.
        if Model::from_bytes(bytes.as_slice())?.has_actions() {
            continue;
        }
        models.insert(name, Value::String(STANDARD.encode(bytes.as_slice())));
    }
    let [html, style, script] = [read("index.html")?, read("style.css")?, read("app.js")?];
    ensure!(html.contains(STYLE) && html.contains(SCRIPT), "index.html lacks {STYLE} or {SCRIPT}");
    let data = format!("const SHIPPED = {};\nconst CORE = \"{core}\";", Value::Object(models));
    let scripts = format!("<script>\n{data}\n</script>\n<script>\n{script}</script>");
    Ok(html.replace(STYLE, &format!("<style>\n{style}</style>")).replace(SCRIPT, &scripts))
}

/// Compiles the core.
fn core() -> anyhow::Result<PathBuf> {
    let folder = root().join("target").join("web");
    eprintln!("compiling the core to WebAssembly");
    let output = setup::toolchain_with_std(TARGET)?
        .build(&root().join("runtime").join("web"), TARGET)
        .env("CARGO_TARGET_DIR", &folder)
        // Every browser has it since 2023, the most of them since 2021.
        .env("RUSTFLAGS", "-Ctarget-feature=+simd128")
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "runtime/web does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(folder.join(TARGET).join("release").join("waft_web.wasm"))
}

/// Answers every request for the page until it is interrupted.
fn serve(address: &str, page: &str) -> anyhow::Result<()> {
    let server = tiny_http::Server::http(address)
        .map_err(anyhow::Error::from_boxed)
        .with_context(|| format!("--address {address}"))?;
    println!("http://{}/ (Ctrl+C ends it)", server.server_addr());
    let html = tiny_http::Header::from_bytes("Content-Type", "text/html; charset=utf-8")
        .map_err(|()| anyhow::anyhow!("a header of ours"))?;
    for request in server.incoming_requests() {
        let path = request.url().split(['?', '#']).next().unwrap_or_default();
        let answer = match path {
            "/" | "/index.html" => tiny_http::Response::from_string(page).with_header(html.clone()),
            _ => tiny_http::Response::from_string("not here").with_status_code(404),
        };
        // Whoever asked may be gone.
        let _gone = request.respond(answer);
    }
    Ok(())
}
