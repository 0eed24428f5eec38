//! The work of a convolution, by the way in which it is computed.

use waft::format::{Conv2d, Element, NONE, WeightLayout};

use super::Work;

/// How a convolution reads its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As it is.
    Ring,
    /// Unfolded into patches.
    Patches,
    /// Transformed into so many rows of tiles at once; the ring's element tells tiles apart.
    Tiles(usize),
}

impl Way {
    /// That of a record.
    pub fn of(op: &Conv2d) -> Self {
        match (op.patches, op.tile_rows) {
            (NONE, _) => Way::Ring,
            (_, 0) => Way::Patches,
            (_, rows) => Way::Tiles(rows.into()),
        }
    }
}

/// What a convolution's work follows from, the way into its ring apart.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    /// Of the ring.
    pub element: Element,
    /// Of the weights.
    pub layout: WeightLayout,
    /// How the ring is read.
    pub way: Way,
    /// Rows, columns and channels as the kernel computes them.
    pub output: [usize; 3],
    /// Channels of the ring.
    pub inputs: usize,
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
}

impl Convolution {
    /// The work.
    pub fn work(&self) -> Work {
        let [rows, columns, outputs] = self.output.map(|size| size as f64);
        let [height, width] = self.kernel.map(|size| size as f64);
        let inputs = self.inputs as f64;
        let blocks = (outputs / 8.0).ceil();
        let element = format!("{:?}", self.element).to_lowercase();
        let way = match self.way {
            Way::Ring => "",
            Way::Patches => " unfolded",
            Way::Tiles(_) => " tiled",
        };
        let class = format!("conv2d {element} {:?}{way}", self.layout);
        let results = rows * columns * outputs;
        let Way::Tiles(together) = self.way else {
            return vec![
                (format!("{class} multiply"), results * height * width * inputs),
                (format!("{class} run"), rows * columns * blocks * height),
                (format!("{class} output"), results),
                (format!("{class} slice"), rows * blocks),
            ];
        };
        let side = if self.element == Element::I8 { 4.0 } else { 2.0 };
        let bands = rows / (side * together as f64);
        let mut work = vec![
            // Those of a tile's points, whatever is computed by one.
            (format!("{class} multiply"), results / (side * side) * inputs),
            (format!("{class} input"), rows * columns / (side * side) * inputs),
            (format!("{class} output"), results),
            (format!("{class} slice"), rows * blocks),
        ];
        if !self.layout.is_transformed() {
            // Each band transforms all of them.
            work.push((format!("{class} weight"), bands * inputs * outputs));
        }
        work
    }
}
