//! Several models in one program, one after the other in the same memory.

use waft::{Arena, Model, Request, Session};
use waft_models::digits;

waft::include_model!(HALF, "../../../models/digits/digits-f16.waft");

const fn larger(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

static ARENA: Arena<{ larger(digits::I8.arena_bytes(), HALF.arena_bytes()) }> = Arena::new();

fn draw(model: &Model<'_>, memory: &mut [u8], class: u16) -> Vec<u8> {
    let mut session = Session::new(model, memory).expect("fits the larger of both");
    let mut run = session.sample(Request::new().class(class).seed(3)).expect("valid");
    while run.step().expect("runs").is_some() {}
    run.image().expect("complete").data().to_vec()
}

#[test]
fn two_models_take_turns_in_one_arena() {
    let alone = |model: &Model<'_>, class| {
        let mut memory = waft_host::sample::arena(model);
        draw(model, memory.as_mut_slice(), class)
    };
    let memory = ARENA.take().expect("first use");
    assert_eq!(memory.len(), HALF.arena_bytes());
    for class in [1, 6] {
        assert_eq!(draw(&digits::I8, memory, class), alone(&digits::I8, class));
        assert_eq!(draw(&HALF, memory, class), alone(&HALF, class));
    }
    // A run that is dropped half-way leaves nothing that another model could trip over.
    let mut session = Session::new(&HALF, memory).expect("fits");
    let mut run = session.sample(Request::new().class(2)).expect("valid");
    for _ in 0..500 {
        run.step().expect("runs");
    }
    assert_eq!(draw(&digits::I8, memory, 4), alone(&digits::I8, 4));
}
