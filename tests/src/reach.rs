//! The world of the policy `reach`, as `models/reach/world.py` has it, and the policy in a closed loop: every eight ticks it is
//! given two observations and draws sixteen positions along its own axes, of which eight are executed.

use std::fmt::Write as _;
use std::ops::Range;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg32;
use waft::{Model, Request, Samples, SamplesMut, Session};
use waft_host::fixed::{to_fixed, to_floats};
use waft_host::sample::arena;

/// A place in the square from −1 to 1.
pub type Point = [f32; 2];

/// The longest way of a tick.
const SPEED: f32 = 0.06;
/// Of the disc.
const RADIUS: f32 = 0.25;
/// How near the goal is near enough.
const REACHED: f32 = 0.06;
/// Of an episode.
const TICKS: usize = 80;
/// What the demonstrations keep from the disc.
const MARGIN: f32 = 0.16;
/// Where discs stand.
#[derive(Clone, Debug)]
pub struct Discs {
    /// How far beside the straight way from start to goal.
    pub beside: Range<f32>,
    /// The largest coordinate.
    pub within: f32,
}

/// Those of the demonstrations, anywhere.
pub const DEMONSTRATED: Discs = Discs { beside: 0.06..0.2, within: f32::INFINITY };
/// A part of them: those that leave one side to take, and room there inside of the square.
pub const CLEAR: Discs = Discs { beside: 0.15..0.2, within: 0.5 };
/// Positions of a trajectory that are executed: from the one after the last observation on.
const EXECUTED: Range<usize> = 1..9;

fn difference(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1]]
}

fn distance(a: Point, b: Point) -> f32 {
    let [x, y] = difference(a, b);
    x.hypot(y)
}

/// What a robot is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Episode {
    /// Where it starts.
    pub start: Point,
    /// Where it should go.
    pub goal: Point,
    /// The middle of the disc.
    pub centre: Point,
}

impl Episode {
    /// One of those that a seed stands for.
    pub fn draw(seed: u64, discs: &Discs) -> Self {
        let Discs { beside, within } = discs;
        let mut random = Pcg32::seed_from_u64(seed);
        loop {
            let mut uniform = |from: f32, to: f32| random.random_range(from..to);
            let [start, goal] = [(); 2].map(|()| [uniform(-0.9, 0.9), uniform(-0.9, 0.9)]);
            let (along, aside) = (uniform(0.35, 0.65), uniform(beside.start, beside.end));
            let aside = if uniform(-1.0, 1.0) < 0.0 { -aside } else { aside };
            let (way, length) = (difference(goal, start), distance(goal, start));
            let across = [-way[1] / length, way[0] / length];
            let centre = [0, 1].map(|axis| start[axis] + along * way[axis] + aside * across[axis]);
            let clear = RADIUS + MARGIN + 0.06;
            let has_room = centre.iter().all(|at| at.abs() <= *within);
            if has_room && length > 0.9 && distance(start, centre) > clear && distance(goal, centre) > clear {
                return Self { start, goal, centre };
            }
        }
    }

    /// How far the middle of the disc is beside the straight way.
    pub fn beside(&self) -> f32 {
        let (way, to_centre) = (difference(self.goal, self.start), difference(self.centre, self.start));
        (way[0] * to_centre[1] - way[1] * to_centre[0]).abs() / distance(self.goal, self.start)
    }

    /// The robot's axes at a position: forward, which points at the goal, and left.
    fn axes(&self, position: Point) -> [Point; 2] {
        let (way, length) = (difference(self.goal, position), distance(self.goal, position));
        let forward = if length > 1e-6 { way.map(|x| x / length) } else { [1.0, 0.0] };
        [forward, [-forward[1], forward[0]]]
    }

    /// What the policy sees from a position: how far the goal is, and the centre of the disc along the robot's axes.
    fn seen(&self, position: Point) -> [f32; 3] {
        let to_centre = difference(self.centre, position);
        let [forward, left] = self.axes(position).map(|axis| axis[0] * to_centre[0] + axis[1] * to_centre[1]);
        [distance(self.goal, position), forward, left]
    }
}

/// What became of an episode.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// What was asked for.
    pub episode: Episode,
    /// Every position.
    pub path: Vec<Point>,
    /// Whether the robot reached the goal and never touched the disc.
    pub succeeded: bool,
}

/// The position after one tick towards a target.
fn step(position: Point, target: Point) -> Point {
    let length = distance(position, target);
    if length <= SPEED {
        return target;
    }
    let way = difference(target, position);
    [0, 1].map(|axis| position[axis] + way[axis] * (SPEED / length))
}

/// Lets a policy act in an episode.
///
/// # Panics
/// If the model is not a policy for this world.
pub fn roll_out(model: &Model<'_>, episode: Episode, seed: u64) -> Rollout {
    let mut memory = arena(model);
    let mut session = Session::new(model, memory.as_mut_slice()).expect("the model runs here");
    let (mut before, mut position) = (episode.start, episode.start);
    let mut path = vec![position];
    let (mut touched, mut reached) = (false, false);
    let mut plan = 0;
    while path.len() <= TICKS && !reached && !touched {
        let observation = [episode.seen(before), episode.seen(position)].concat();
        let (origin, [forward, left]) = (position, episode.axes(position));
        observe(&mut session, &observation);
        let request = Request::new().seed(seed.wrapping_mul(1000).wrapping_add(plan));
        let actions = act(&mut session, request);
        plan += 1;
        for target in actions.as_chunks::<2>().0[EXECUTED].iter() {
            before = position;
            let [along, aside] = *target;
            let target = [0, 1].map(|axis| origin[axis] + along * forward[axis] + aside * left[axis]);
            position = step(position, target);
            path.push(position);
            touched |= distance(position, episode.centre) < RADIUS;
            reached |= distance(position, episode.goal) < REACHED;
            if touched || reached || path.len() > TICKS {
                break;
            }
        }
    }
    Rollout { episode, path, succeeded: reached && !touched }
}

/// Gives a policy what it acts on.
///
/// # Panics
/// If the model acts on something else.
pub fn observe(session: &mut Session<'_>, values: &[f32]) {
    match session.observation().expect("a policy") {
        SamplesMut::Fixed(observation) => observation.copy_from_slice(&to_fixed(values)),
        SamplesMut::Float(observation) => observation.copy_from_slice(values),
    }
}

/// The actions of a request.
///
/// # Panics
/// If the model is not a policy, or was not given an observation.
pub fn act(session: &mut Session<'_>, request: Request) -> Vec<f32> {
    let mut run = session.sample(request).expect("an observation was given");
    while run.step().expect("seeds do not run out").is_some() {}
    let actions: Option<Samples<'_>> = run.actions();
    assert!(actions.is_some(), "a policy has actions");
    to_floats(actions)
}

/// Pictures of episodes, side by side, as SVG.
pub fn picture(rollouts: &[Rollout], columns: usize) -> String {
    const CELL: f32 = 200.0;
    let columns = columns.max(1);
    let rows = rollouts.len().div_ceil(columns);
    let (width, height) = (CELL * columns as f32, CELL * rows as f32);
    let mut svg = format!("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\">\n");
    let _ = writeln!(svg, "<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>");
    for (index, rollout) in rollouts.iter().enumerate() {
        let [left, top] = [index % columns, index / columns].map(|cell| cell as f32 * CELL);
        let place = |[x, y]: Point| (left + (x + 1.0) / 2.0 * CELL, top + (1.0 - y) / 2.0 * CELL);
        let circle = |at: Point, radius: f32, fill: &str| {
            let (x, y) = place(at);
            format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{:.1}\" fill=\"{fill}\"/>\n", radius * CELL / 2.0)
        };
        let Episode { start, goal, centre } = rollout.episode;
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{top}\" width=\"{CELL}\" height=\"{CELL}\" fill=\"none\" stroke=\"#ddd\"/>"
        );
        svg += &circle(centre, RADIUS, "#bbb");
        svg += &circle(goal, REACHED, "#7c7");
        svg += &circle(start, 0.03, "#36c");
        let points: Vec<String> =
            rollout.path.iter().map(|&at| format!("{:.1},{:.1}", place(at).0, place(at).1)).collect();
        let colour = if rollout.succeeded { "#36c" } else { "#c33" };
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
    }
    svg + "</svg>\n"
}
