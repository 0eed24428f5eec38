//! Where a linked model lies: the linker says where the section that was asked for begins and ends.

use std::hint::black_box;

waft::include_model! {
    /// In a section of its own.
    #[unsafe(link_section = "waft_placed")]
    PLACED, "../../../models/digits/digits-i4.waft"
}

waft::include_model!(ELSEWHERE, "../../../models/digits/digits-i4.waft");

unsafe extern "C" {
    // The linker defines these for every section whose name is an identifier.
    static __start_waft_placed: u8;
    static __stop_waft_placed: u8;
}

#[test]
fn a_link_section_places_the_bytes_of_the_model() {
    // To the compiler different symbols have different addresses, whatever the linker does: it must not see where they are from.
    let section = black_box((&raw const __start_waft_placed).addr())..black_box((&raw const __stop_waft_placed).addr());
    let bytes = PLACED.bytes().as_ptr_range();
    assert_eq!(black_box(bytes.start.addr()), section.start);
    assert_eq!(section.len().next_multiple_of(16), PLACED.bytes().len().next_multiple_of(16));
    assert!(section.start.is_multiple_of(16), "aligned");
    assert!(!section.contains(&(&raw const PLACED).addr()), "the view is an ordinary static");
    assert!(!section.contains(&ELSEWHERE.bytes().as_ptr().addr()), "other models lie elsewhere");
}
