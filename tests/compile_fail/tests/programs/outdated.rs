waft::include_model!(MODEL, env!("WAFT_OUTDATED"));

fn main() {
    println!("{}", MODEL.arena_bytes());
}
