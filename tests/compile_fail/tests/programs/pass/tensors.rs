// See emoji.rs.
#![deny(long_running_const_eval)]

static FILE: &waft::Aligned<[u8]> = &waft::Aligned(*include_bytes!(env!("WAFT_TENSORS")));
static MODEL: waft::Model<'static> = waft::Model::from_bytes_or_panic(&FILE.0);

fn main() {
    assert!(MODEL.tensors() >= 1000);
}
