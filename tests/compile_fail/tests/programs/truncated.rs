waft::include_model!(MODEL, env!("WAFT_TRUNCATED"));

fn main() {
    println!("{}", MODEL.arena_bytes());
}
