waft::include_model!(MODEL, env!("WAFT_DAMAGED"));

fn main() {
    println!("{}", MODEL.arena_bytes());
}
