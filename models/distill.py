# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.4", "diffusers>=0.36", "numpy", "safetensors"]
# ///
"""Distils a diffusers checkpoint into a student that draws a picture in one, two or four network calls.

    python models/distill.py models/digits/checkpoint --steps 1 --out models/digits-1step/checkpoint
    cargo xtask export-weights models/digits-1step/checkpoint --out digits-1step-i8.waft

The student has the teacher's network and is sampled by plain DDIM on a fixed list of timesteps, so the exporter takes
it as it takes any other checkpoint. The list is diffusers' leading spacing with an offset: `i * (T // n) + offset`.

1. Timesteps. Without --offset, the teacher draws with every twentieth of the possible offsets; the one whose pictures
   are nearest to a fine trajectory's wins (energy distance, Szekely and Rizzo, 2013; no classifier and no data needed).
   Lists that start at pure noise (trailing spacing) lose: there the network's prediction says nothing.
2. Pairs. The teacher turns noise into pictures along a fine trajectory: DPM-Solver++(2M) (Lu et al., 2022,
   arXiv:2211.01095) at the middles of --fine equal parts of the T training timesteps.
   A student is no better than its pairs. Ten parts are enough for digits; emoji's pairs by ten are at a Frechet
   distance of 27 from real pictures, by twenty of 14, which is the teacher's own. `waft compare` tells.
3. Training, end to end: the student starts as the teacher, its whole run of n steps is differentiated and compared with
   the picture of its pair. Loss: pseudo-Huber (Song and Dhariwal, 2023, arXiv:2310.14189) of the root mean square
   difference. The bound of the clean sample passes gradients that pull back inside. What is saved is the exponential
   moving average.

Options: --guidance folds classifier-free guidance into the student, which then needs one call where the teacher needs
two; --steps 1,2,4 trains one student for several counts, in turns, and saves a folder for each. The class that means
"no class" is not trained and not saved, so a student cannot be guided. A run that was stopped goes on with the same
command. Students can share their pairs (--state). On two idle cores a digits student takes less than ten minutes.
"""

import argparse
import copy
import hashlib
import json
import math
import time
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch.utils.checkpoint import checkpoint

BLOCK = 500  # pictures drawn at a time; the noise of each block has a seed of its own
HUBER = 0.0625  # pictures nearer than this (root mean square) are compared by squares
HELD_OUT = 1 << 20  # blocks from here on are never trained on


class Bound(torch.autograd.Function):
    """Clamps to +-bound; outside, only gradients that pull back inside pass."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, bound: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(-bound, bound)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        (x,) = ctx.saved_tensors
        return torch.where((x.abs() <= ctx.bound) | (gradient * x > 0), gradient, 0), None


class Teacher:
    """A checkpoint with its noise schedule and its classes."""

    def __init__(self, folder: Path, guidance: float, device: torch.device):
        self.folder, self.guidance, self.device = folder, guidance, device
        self.model = opened(folder, device)
        self.scheduler = DDIMScheduler.from_pretrained(folder)
        config = self.scheduler.config
        if config.thresholding or (config.clip_sample and config.clip_sample_range != 1):
            raise SystemExit(f"{folder}: only clipping to +-1 or none is supported, not thresholding or another range")
        self.bound = 1.0 if config.clip_sample else None
        defaults = folder / "waft.json"
        self.defaults = json.loads(defaults.read_text()) if defaults.exists() else {}
        self.none = self.defaults.get("unconditional_class")
        classes = self.model.config.num_class_embeds or 0
        self.classes = [c for c in range(classes) if c != self.none]
        if len(self.classes) > BLOCK:
            raise SystemExit(f"{folder}: {len(self.classes)} classes; raise BLOCK, {BLOCK}, to at least as many")
        if guidance != 1 and self.none is None:
            raise SystemExit(f"{folder}/waft.json names no unconditional_class, which --guidance needs")
        size = self.model.config.sample_size
        if size is None:
            raise SystemExit(f"{folder}/config.json: sample_size is not set")
        height, width = (size, size) if isinstance(size, int) else size
        self.shape = (self.model.config.in_channels, height, width)

    def predict(self, x: torch.Tensor, t: int, classes: torch.Tensor | None) -> torch.Tensor:
        predicted = self.model(x, t, class_labels=classes).sample
        if self.guidance == 1:
            return predicted
        without = self.model(x, t, class_labels=torch.full_like(classes, self.none)).sample
        return without + self.guidance * (predicted - without)

    def noise(self, block: int, seed: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """A block's noise, and its classes in turn."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + block)
        x = torch.randn((BLOCK, *self.shape), generator=generator).to(self.device)
        if not self.classes:
            return x, None
        turn = torch.arange(BLOCK, device=self.device) % len(self.classes)
        return x, torch.tensor(self.classes, device=self.device)[turn]

    @torch.no_grad()
    def fine(self, x: torch.Tensor, classes: torch.Tensor | None, calls: int) -> torch.Tensor:
        """The picture at the end of a fine trajectory."""
        train = self.scheduler.config.num_train_timesteps
        # Thresholding with sample_max_value 1 is clipping to +-1, which this solver does not have by that name.
        solver = DPMSolverMultistepScheduler.from_config(
            self.scheduler.config, thresholding=self.bound is not None, sample_max_value=1.0, solver_order=2
        )
        solver.set_timesteps(timesteps=[int((i + 0.5) * train / calls) for i in reversed(range(calls))])
        for t in solver.timesteps:
            x = solver.step(self.predict(x, t, classes), t, x).prev_sample
        return x if self.bound is None else x.clamp(-1, 1)

    def timesteps(self, steps: int, offset: int) -> list[int]:
        return [i * (self.scheduler.config.num_train_timesteps // steps) + offset for i in reversed(range(steps))]

    def ddim(self, predict, x: torch.Tensor, classes: torch.Tensor | None, timesteps: list[int]) -> torch.Tensor:
        """Deterministic DDIM with `use_clipped_model_output` (Song et al., 2020, equation 12), differentiable."""
        alphas, config = self.scheduler.alphas_cumprod, self.scheduler.config
        for t, next_t in zip(timesteps, timesteps[1:] + [-1]):
            signal, sigma = alphas[t].sqrt().item(), (1 - alphas[t]).sqrt().item()
            predicted = predict(x, t, classes)
            if config.prediction_type == "epsilon":
                clean = (x - sigma * predicted) / signal
            elif config.prediction_type == "v_prediction":
                clean = signal * x - sigma * predicted
            else:
                clean = predicted
            if self.bound is not None:
                clean = Bound.apply(clean, self.bound)
            alpha = alphas[next_t].item() if next_t >= 0 else self.scheduler.final_alpha_cumprod.item()
            x = math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * (x - signal * clean) / sigma
        return x


def opened(folder: Path, device: torch.device) -> UNet2DModel:
    """A saved network in f32, not to be trained."""
    model = UNet2DModel.from_pretrained(folder, torch_dtype=torch.float32, low_cpu_mem_usage=False)
    for module in model.modules():
        if isinstance(module, Attention):
            # The same arithmetic by matrix products, which are faster than the fused kernel for a few dozen tokens.
            module.set_processor(AttnProcessor())
    return model.to(device).eval().requires_grad_(False)


def energy_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Energy distance of two sets of pictures, divided by the root of their size; 0 for equal distributions."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    within = lambda x: torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))
    return float((2 * torch.cdist(a, b).mean() - within(a) - within(b)) / math.sqrt(a.shape[1]))


def write(state: dict, path: Path) -> None:
    """Writes a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def read(path: Path, settings: dict) -> dict | None:
    """What an earlier run left, if its settings were these."""
    if not path.exists():
        return None
    state = torch.load(path, weights_only=True)
    if state["settings"] != settings:
        other = state["settings"]
        raise SystemExit(f"{path} is of a run with other settings, {other}: remove it, or give another --state")
    return state


def search(teacher: Teacher, steps: int, fine: int, seed: int) -> int:
    """The offset whose few-step pictures are nearest to a fine trajectory's."""
    blocks = [teacher.noise(HELD_OUT + i, seed) for i in range(4)]
    # The target comes from other noise than the pictures, as the energy distance of two independent sets wants it.
    target = torch.cat([teacher.fine(x, c, fine) for x, c in blocks[:2]])
    stride = teacher.scheduler.config.num_train_timesteps // steps
    best = (math.inf, 0)
    for offset in dict.fromkeys(stride * i // 20 for i in range(1, 20)):
        with torch.no_grad():
            list_ = teacher.timesteps(steps, offset)
            drawn = torch.cat([teacher.ddim(teacher.predict, x, c, list_) for x, c in blocks[2:]])
        distance = energy_distance(drawn, target)
        print(f"{steps} steps, offset {offset}: energy distance {distance:.5f}", flush=True)
        best = min(best, (distance, offset))
    return best[1]


def draw_pairs(teacher: Teacher, args: argparse.Namespace, digest: str) -> torch.Tensor:
    """The pictures of all pairs, in the order of their noise."""
    settings = {"teacher": digest, "guidance": args.guidance, "fine": args.fine, "seed": args.seed}
    path = args.state / "pairs.pt"
    state = read(path, settings)
    done = list(state["pictures"].split(BLOCK)) if state else []
    blocks, first, started = math.ceil(args.pairs / BLOCK), len(done), time.time()
    for block in range(first, blocks):
        done.append(teacher.fine(*teacher.noise(block, args.seed), args.fine).cpu())
        if (block + 1) % 8 == 0 or block + 1 == blocks:
            write({"settings": settings, "pictures": torch.cat(done)}, path)
        left = (time.time() - started) / (block + 1 - first) * (blocks - block - 1)
        print(f"pairs {(block + 1) * BLOCK}/{blocks * BLOCK}, {left:.0f} s left", flush=True)
    return torch.cat(done[:blocks])


def train(teacher: Teacher, lists: list[list[int]], pictures: torch.Tensor, args: argparse.Namespace, digest: str):
    """The moving average of the student's weights."""
    names = ("guidance", "fine", "seed", "pairs", "iterations", "batch", "learning_rate", "average")
    settings = {"teacher": digest, "lists": lists} | {name: getattr(args, name) for name in names}
    noise, classes = zip(*(teacher.noise(block, args.seed) for block in range(len(pictures) // BLOCK)))
    noise = torch.cat(noise)
    classes = None if classes[0] is None else torch.cat(classes)
    pictures = pictures.to(teacher.device)
    groups = max(1, len(teacher.classes))
    each = max(1, args.batch // groups)

    student = copy.deepcopy(teacher.model).train().requires_grad_(True)
    average = {name: value.detach().clone() for name, value in student.state_dict().items()}
    optimizer = torch.optim.AdamW(student.parameters(), lr=args.learning_rate, betas=(0.9, 0.99), weight_decay=0)
    path = args.state / f"training-{'-'.join(str(len(l)) for l in lists)}.pt"
    first = 0
    if state := read(path, settings):
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        average, first = state["average"], state["iteration"]
        print(f"going on after iteration {first}", flush=True)

    def predict(x, t, c):
        run = lambda x: student(x, t, class_labels=c).sample
        return checkpoint(run, x, use_reentrant=False) if args.recompute else run(x)

    started, running = time.time(), 0.0
    for iteration in range(first, args.iterations):
        # Every iteration draws from its own seed, so that a resumed run is the same run.
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + iteration)
        # As many of each class: picture i of a block is of class i modulo their number.
        block = torch.randint(len(pictures) // BLOCK, (groups, each), generator=generator)
        turn = torch.randint(BLOCK // groups, (groups, each), generator=generator)
        pick = (block * BLOCK + turn * groups + torch.arange(groups)[:, None]).flatten().to(teacher.device)
        labels = None if classes is None else classes[pick]
        rate = min(1.0, (iteration + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * iteration / args.iterations)))
        optimizer.param_groups[0]["lr"] = args.learning_rate * rate

        drawn = teacher.ddim(predict, noise[pick], labels, lists[iteration % len(lists)])
        square = (drawn - pictures[pick]).square().flatten(1).mean(1)
        loss = ((square + HUBER**2).sqrt() - HUBER).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        decay = min(args.average, (1 + iteration) / (10 + iteration))
        with torch.no_grad():
            for name, value in student.state_dict().items():
                average[name].lerp_(value, 1 - decay)
        done = iteration + 1 - first
        running += (loss.item() - running) * max(0.01, 1 / done)
        if (iteration + 1) % 50 == 0:
            left = (time.time() - started) / done * (args.iterations - iteration - 1)
            print(f"iteration {iteration + 1}/{args.iterations}, loss {running:.4f}, {left:.0f} s left", flush=True)
        if (iteration + 1) % 200 == 0 or iteration + 1 == args.iterations:
            state = {"student": student.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
            write(state | {"settings": settings, "iteration": iteration + 1}, path)
    student.load_state_dict(average)
    return student.eval().requires_grad_(False)


def save(teacher: Teacher, student: UNet2DModel, steps: int, offset: int, out: Path, args: argparse.Namespace) -> None:
    """Saves a checkpoint, opens it again, and holds it against the teacher."""
    config = {name: value for name, value in student.config.items() if not name.startswith("_")}
    weights = {name: value.cpu() for name, value in student.state_dict().items()}
    if teacher.none is not None and teacher.none == len(teacher.classes):
        # Drops the class that was not trained.
        weights["class_embedding.weight"] = weights["class_embedding.weight"][:-1].contiguous()
        config["num_class_embeds"] = len(teacher.classes)
    model = UNet2DModel.from_config(config)
    model.load_state_dict(weights)
    (model.half() if args.half else model).save_pretrained(out)
    scheduler = DDIMScheduler.from_config(teacher.scheduler.config, timestep_spacing="leading", steps_offset=offset)
    scheduler.save_config(out)
    name = f"{teacher.defaults.get('name', teacher.folder.resolve().name)}-{steps}step"
    defaults = {"name": name, "steps": [steps], "use_clipped_model_output": True}
    if "provenance" in teacher.defaults:
        folded = "" if args.guidance == 1 else f", guidance {args.guidance:g} folded in"
        defaults["provenance"] = f"waft models/distill.py{folded}, from {teacher.defaults['provenance']}"
    (out / "waft.json").write_text(json.dumps(defaults, indent=2) + "\n")

    # What diffusers draws from the files.
    model = opened(out, teacher.device)
    scheduler = DDIMScheduler.from_pretrained(out)
    scheduler.set_timesteps(steps)
    timesteps = teacher.timesteps(steps, offset)
    assert scheduler.timesteps.tolist() == timesteps, (scheduler.timesteps, timesteps)
    x, classes = teacher.noise(HELD_OUT + 4, args.seed)
    with torch.no_grad():
        drawn = x
        for t in scheduler.timesteps:
            predicted = model(drawn, t, class_labels=classes).sample
            drawn = scheduler.step(predicted, t, drawn, use_clipped_model_output=True).prev_sample
        trained = teacher.ddim(lambda x, t, c: student(x, t, class_labels=c).sample, x, classes, timesteps)
        before = teacher.ddim(teacher.predict, x, classes, timesteps)
    error = (drawn - trained).abs().max().item()
    if not error < 1e-3:
        raise SystemExit(f"{out}: diffusers draws other pictures than the training did, by {error:.2g}")
    target = teacher.fine(*teacher.noise(HELD_OUT + 5, args.seed), args.fine)
    print(
        f"{out}: timesteps {timesteps}, energy distance to the fine trajectory's pictures "
        f"{energy_distance(drawn, target):.5f}, of the teacher in {steps} steps {energy_distance(before, target):.5f}"
    )


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="the teacher: a folder of save_pretrained, with its scheduler")
    parser.add_argument("--out", type=Path, required=True, help="folder of the student; of several counts, of their folders")
    parser.add_argument("--steps", type=numbers, required=True, help="network calls, or several counts with commas")
    parser.add_argument("--offset", type=numbers, help="offset of each count's timesteps [default: searched]")
    parser.add_argument("--guidance", type=float, default=1.0, help="folded into the student")
    parser.add_argument("--state", type=Path, help="pairs and training state [default: OUT with .state behind]")
    parser.add_argument("--fine", type=int, default=10, help="calls of the fine trajectory; more for larger pictures")
    parser.add_argument("--pairs", type=int, default=48_000)
    parser.add_argument("--iterations", type=int, help="[default: 3400 for one step, 1000 for others]")
    parser.add_argument("--batch", type=int, default=130)
    parser.add_argument("--learning-rate", type=float, help="[default: 2e-3 for one step, 1e-3 for others]")
    parser.add_argument("--average", type=float, default=0.998, help="decay of the moving average")
    parser.add_argument("--recompute", action="store_true", help="recompute activations: less memory, more time")
    parser.add_argument("--half", action="store_true", help="save float16 weights, in files of half the size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    args.state = args.state or args.out.with_name(args.out.name + ".state")
    args.iterations = args.iterations or (3400 if args.steps == [1] else 1000)
    args.learning_rate = args.learning_rate or (2e-3 if args.steps == [1] else 1e-3)

    teacher = Teacher(args.checkpoint, args.guidance, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    train_timesteps = teacher.scheduler.config.num_train_timesteps
    for steps in args.steps:
        if not 1 <= steps <= train_timesteps:
            parser.error(f"--steps {steps}: 1 to {train_timesteps}")
    if args.offset and len(args.offset) != len(args.steps):
        parser.error("--offset needs one number for each of --steps")
    for steps, offset in zip(args.steps, args.offset or []):
        if not 0 <= offset < train_timesteps // steps:
            parser.error(f"--offset {offset}: 0 to {train_timesteps // steps - 1} in {steps} steps")
    weights = teacher.model.state_dict().values()
    digest = hashlib.sha256(b"".join(value.cpu().numpy().tobytes() for value in weights)).hexdigest()

    offsets = args.offset or [search(teacher, steps, args.fine, args.seed) for steps in args.steps]
    lists = [teacher.timesteps(steps, offset) for steps, offset in zip(args.steps, offsets)]
    print(f"timesteps {lists}", flush=True)
    pictures = draw_pairs(teacher, args, digest)
    student = train(teacher, lists, pictures, args, digest)
    if args.half:
        student.half().float()
    for steps, offset in zip(args.steps, offsets):
        out = args.out if len(args.steps) == 1 else args.out / f"{steps}step"
        save(teacher, student, steps, offset, out, args)


if __name__ == "__main__":
    main()
