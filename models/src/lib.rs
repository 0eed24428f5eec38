//! Models shipped with waft, ready to link into firmware.
//!
//! Each model is a module behind a feature of its name. Its folder in this crate holds the checkpoint, the script that
//! trained it, its card with measured figures, and the exported files.
//!
//! ```
//! use waft_models::digits;
//!
//! static ARENA: waft::Arena<{ digits::I8.arena_bytes() }> = waft::Arena::new();
//! let mut session = waft::Session::new(&digits::I8, ARENA.take().expect("first use")).expect("fits exactly");
//! let request = waft::Request::new().class(7).seed(42).steps(10);
//! let mut run = session.sample(request).expect("a valid request");
//! while run.step().expect("seeds do not run out").is_some() {}
//! assert_eq!(run.image().expect("complete").data().len(), 64);
//! ```
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(missing_docs)]

/// Handwritten digits, 8×8 grey, classes 0 to 9 and 10 for "no class"; lists of 10, 20 and 50 steps.
#[cfg(feature = "digits")]
pub mod digits {
    waft::include_model!(
        /// The `i8` precision: integers only.
        pub I8,
        "../digits/digits-i8.waft"
    );
}

/// Emoji, 32×32 in colour on white, classes 0 to 7 (faces, hearts, animals, plants, food, places, transport, weather) and 8
/// for "no class"; lists of 20 and 50 steps. 1.6 MB of flash; the check adds about two seconds to a build.
#[cfg(feature = "emoji")]
pub mod emoji {
    waft::include_model!(
        /// The `i8` precision: integers only.
        pub I8,
        "../emoji/emoji-i8.waft"
    );
}

/// A policy for a point robot that must go round a disc to a goal: acts on twelve numbers, the robot, the goal and the disc at
/// two ticks, and draws sixteen positions; a list of 10 steps. See [`Session::observation`](waft::Session::observation) and
/// [`Run::actions`](waft::Run::actions).
#[cfg(feature = "reach")]
pub mod reach {
    waft::include_model!(
        /// The `i8` precision: integers only.
        pub I8,
        "../reach/reach-i8.waft"
    );
}

/// File names and bytes of the shipped models in their default precision, for programs that choose one when they run.
/// The bytes are not aligned: copy them to an address that is a multiple of 16 before [`waft::Model::from_bytes`].
#[cfg(feature = "files")]
pub static FILES: [(&str, &[u8]); 3] = [
    ("digits-i8.waft", include_bytes!("../digits/digits-i8.waft")),
    ("emoji-i8.waft", include_bytes!("../emoji/emoji-i8.waft")),
    ("reach-i8.waft", include_bytes!("../reach/reach-i8.waft")),
];
