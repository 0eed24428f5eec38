"""The task: a point robot in the square from -1 to 1 must go round a disc to a goal.

The robot is told a position once per tick and moves towards it, at most `SPEED`. An episode succeeds if the robot comes
within `REACHED` of the goal in `TICKS` ticks without touching the disc. `tests/src/reach.rs` has
the same world.
"""

import numpy as np

SPEED = 0.06
RADIUS = 0.25
REACHED = 0.06
TICKS = 80
# Distance that the planner keeps from the disc's edge.
MARGIN = 0.16


def episode(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, goal and centre of the disc, which stands on the way between them, a little to one side."""
    while True:
        start, goal = random.uniform(-0.9, 0.9, (2, 2))
        along = random.uniform(0.35, 0.65)
        way = goal - start
        aside = np.array([-way[1], way[0]]) / np.linalg.norm(way)
        centre = start + along * way + random.choice([-1, 1]) * random.uniform(0.06, 0.2) * aside
        clear = RADIUS + MARGIN + 0.06
        far = np.linalg.norm(way) > 0.9
        if far and np.linalg.norm(start - centre) > clear and np.linalg.norm(goal - centre) > clear:
            return start, goal, centre


def move(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The position after one tick."""
    way = target - position
    length = np.linalg.norm(way)
    return target if length <= SPEED else position + way * (SPEED / length)


def plan(position: np.ndarray, goal: np.ndarray, centre: np.ndarray, side: float) -> np.ndarray:
    """The planner's next target: the goal if the way is free, else along the tangent of a larger disc, round `side`."""
    keep = RADIUS + MARGIN
    way = goal - position
    along = np.clip(np.dot(centre - position, way) / max(np.dot(way, way), 1e-12), 0, 1)
    nearest = position + along * way
    if np.linalg.norm(nearest - centre) >= keep - 1e-9:
        return move(position, goal)
    to_centre = centre - position
    distance = np.linalg.norm(to_centre)
    # The tangent leaves the line to the centre by this angle; inside of the larger disc, straight out and along.
    angle = np.arcsin(min(1.0, keep / distance)) if distance > keep else np.pi / 2 + min(1.0, 4 * (keep - distance) / keep)
    cosine, sine = np.cos(side * angle), np.sin(side * angle)
    heading = np.array([[cosine, -sine], [sine, cosine]]) @ to_centre / distance
    return position + heading * SPEED


def side_of(position: np.ndarray, goal: np.ndarray, centre: np.ndarray) -> float:
    """Round which side: the shorter one from here. It is a function of what the policy sees, and the way round makes it the
    shorter still, so a robot that was pushed across, or chose otherwise once, goes on where it is."""
    way = goal - position
    to_centre = centre - position
    return -1.0 if way[0] * to_centre[1] - way[1] * to_centre[0] > 0 else 1.0


def frame(position: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The robot's axes as rows: forward, which points at the goal, and left."""
    way = goal - position
    length = np.linalg.norm(way)
    forward = way / length if length > 1e-6 else np.array([1.0, 0.0])
    return np.array([forward, [-forward[1], forward[0]]])


def seen(position: np.ndarray, goal: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """What the robot sees: how far the goal is, and the centre of the disc along its axes."""
    return np.array([np.linalg.norm(goal - position), *(frame(position, goal) @ (centre - position))])
