//! What a checkpoint and its user say of classes: how many, vectors of their own, and what does not fit.

use serde_json::{Value, json};
use waft::Precision;
use waft_host::checkpoint::{Checkpoint, ClassVectors, Options};
use waft_host::export::{ExportOptions, export};
use waft_host::import::import;
use waft_tests::golden;

/// A checkpoint among the goldens, to be changed.
fn copy_of(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for entry in std::fs::read_dir(golden(name)).expect("there").map(|entry| entry.expect("an entry")) {
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copies");
    }
    folder
}

#[test]
fn tables_of_classes_that_do_not_fit_are_refused() {
    let folder = copy_of("class_channels");
    let write = |name: &str, value: Value| std::fs::write(folder.path().join(name), value.to_string()).expect("writes");
    let refusal = || {
        let opened = Checkpoint::open(folder.path()).expect("opens");
        import(&opened).expect_err("refused").to_string()
    };
    let config = json!({ "sample_size": 8, "norm_num_groups": 4 });
    write("waft.json", json!({ "classes": 7 }));
    assert!(refusal().contains("class_emb.weight says it"), "{}", refusal());
    write("waft.json", json!({ "condition_channels": 1 }));
    assert!(refusal().contains("condition_channels = stated"), "{}", refusal());
    write("waft.json", json!({}));
    let with = |field: &str, value: Value| {
        let mut config = config.as_object().expect("an object").clone();
        config.insert(field.into(), value);
        write("config.json", Value::Object(config));
    };
    with("num_class_embeds", json!(5));
    assert!(refusal().contains("num_class_embeds"), "{}", refusal());
    // The configuration of the member, as diffusers writes it.
    with("_class_name", json!("UNet2DModel"));
    let graph = import(&Checkpoint::open(folder.path()).expect("opens")).expect("imports");
    assert_eq!(graph.classes.map(|classes| classes.classes), Some(5));
    assert_eq!((graph.tensors[0].shape.c, graph.condition), (1, None));
}

/// Vectors for classes: where they are looked for, and for which networks.
#[test]
fn vectors_of_classes_are_read_from_the_folder_and_fit() {
    let folder = copy_of("fourier");
    let write = |text: &str| std::fs::write(folder.path().join("waft.json"), text).expect("writes");
    write(r#"{"class_embeddings": "../class_embeddings.safetensors"}"#);
    let error = Checkpoint::open(folder.path()).expect_err("refused").to_string();
    assert!(error.contains("outside the folder"), "{error}");
    write("{}");
    let mut opened = Checkpoint::open(folder.path()).expect("opens");
    assert!(import(&opened).expect_err("refused").to_string().contains("as class_embeddings in waft.json"));
    opened.set_class_vectors(ClassVectors { length: 4, values: vec![0.5; 8] });
    let error = import(&opened).expect_err("refused").to_string();
    assert!(error.contains("with vectors of 4") && error.contains("(classes, 12)"), "{error}");
    let mut other = Checkpoint::open(golden("velocity")).expect("opens");
    other.set_class_vectors(ClassVectors { length: 24, values: vec![0.5; 48] });
    let error = import(&other).expect_err("refused").to_string();
    assert!(error.contains("its classes are numbers"), "{error}");
}

/// A network that takes any number for a class: as many as the user says, or ten, which is told; each has the embedding that
/// diffusers' outputs confirm (`class_timestep` among the goldens).
#[test]
fn any_number_is_a_class_where_it_is_embedded_as_a_timestep() {
    let folder = copy_of("class_timestep");
    let classes = |options: &Options| {
        let checkpoint = Checkpoint::open_with(folder.path(), options).expect("opens");
        import(&checkpoint).expect("imports").classes.expect("has classes")
    };
    let stated = classes(&Options::default());
    assert_eq!((stated.classes, stated.is_assumed), (5, false), "as waft.json says");
    let three = classes(&Options { classes: Some(3), ..Options::default() });
    assert_eq!((three.classes, three.is_assumed), (3, false), "as the option says");
    std::fs::remove_file(folder.path().join("waft.json")).expect("there is one");
    let assumed = classes(&Options::default());
    assert_eq!((assumed.classes, assumed.is_assumed), (10, true));
    assert!(assumed.table.starts_with(&stated.table) && stated.table.starts_with(&three.table));

    let checkpoint = Checkpoint::open(folder.path()).expect("opens");
    let options = ExportOptions { precision: Precision::F32, steps: vec![2], ..ExportOptions::default() };
    let notes = export(&checkpoint, &options, &()).expect("exports").report.notes;
    assert!(notes.iter().any(|note| note.contains("0 to 9: --classes")), "{notes:?}");
}

/// What the user says of classes is refused where the network has no use for it.
#[test]
fn classes_that_a_network_does_not_ask_for_are_refused() {
    let vectors = golden("fourier").join("class_embeddings.safetensors");
    for (name, options, expected) in [
        ("velocity", Options { classes: Some(3), ..Options::default() }, "classes = 3"),
        ("cifar_small", Options { classes: Some(3), ..Options::default() }, "classes = 3"),
        ("fourier", Options { classes: Some(3), ..Options::default() }, "classes = 3"),
        ("lerobot", Options { classes: Some(3), ..Options::default() }, "only networks of pictures have them"),
        (
            "lerobot",
            Options { class_embeddings: Some(vectors.clone()), ..Options::default() },
            "only networks of pictures have them",
        ),
        ("velocity", Options { class_embeddings: Some(vectors), ..Options::default() }, "its classes are numbers"),
    ] {
        let checkpoint = Checkpoint::open_with(golden(name), &options).expect("opens");
        let error = import(&checkpoint).expect_err("refused").to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
}

/// Vectors of classes that lie elsewhere, by an option.
#[test]
fn vectors_of_classes_are_read_from_any_file_that_an_option_names() {
    let folder = copy_of("fourier");
    let table = |options: &Options| {
        let checkpoint = Checkpoint::open_with(folder.path(), options).expect("opens");
        import(&checkpoint).expect("imports").classes.expect("has classes").table
    };
    let expected = table(&Options::default());
    std::fs::remove_file(folder.path().join("waft.json")).expect("there is one");
    let vectors = golden("fourier").join("class_embeddings.safetensors");
    let options = Options { class_embeddings: Some(vectors), ..Options::default() };
    assert_eq!(table(&options), expected);
}
