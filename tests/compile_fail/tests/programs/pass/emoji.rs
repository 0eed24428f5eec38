// The compiler stops at two million steps, which `include_model!` would allow: this model takes a fraction.
#![deny(long_running_const_eval)]

static FILE: &waft::Aligned<[u8]> = &waft::Aligned(*include_bytes!(env!("WAFT_EMOJI")));
static MODEL: waft::Model<'static> = waft::Model::from_bytes_or_panic(&FILE.0);

fn main() {
    assert!(MODEL.bytes().len() > 1_500_000);
}
