"""Training scripts of libraries, as they are and under ``python -m headrace.torch``: what differs in their batches.

``python benchmarks/libraries.py`` runs each script twice, in the interpreter that runs this one, and compares the
shapes, dtypes and values of all batches. Values count where no transform draws. Libraries that are not installed
are left out. The scripts make their own data. The exit status is 1 if anything differs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HEAD = """
import json, warnings
warnings.simplefilter("ignore")
import torch
torch.manual_seed(0)
torch.set_num_threads(1)

def leaves(batch):
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, dict):
        for key in sorted(batch):
            yield from leaves(batch[key])
    elif isinstance(batch, (list, tuple)):
        for part in batch:
            yield from leaves(part)

def said(batch, values=True):
    found = [[list(one.shape), str(one.dtype), float(one.double().sum()) if values else None] for one in leaves(batch)]
    write("BATCH", json.dumps(found))

def kind(loader):
    write("READ BY", *(one.__module__.partition(".")[0] for one in type(loader).__mro__))

def write(*words):
    # Into a file: what libraries print of their progress ends no line.
    with open("said", "a") as file:
        print(*words, file=file)
"""

TRAIN = """
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
data = torch.utils.data.TensorDataset(torch.arange(80.0).reshape(20, 4) / 80, torch.arange(20.0))
"""

SCRIPTS: dict[str, tuple[str, str]] = {
    "accelerate": (
        "accelerate",
        TRAIN
        + """
import accelerate
accelerator = accelerate.Accelerator(cpu=True)
model, optimizer, loader = accelerator.prepare(model, optimizer, torch.utils.data.DataLoader(data, 8, num_workers=1))
for x, y in accelerator.skip_first_batches(loader, 1):
    accelerator.backward(torch.nn.functional.mse_loss(model(x)[:, 0], y))
    optimizer.step()
    optimizer.zero_grad()
    said((x, y))
kind(loader.base_dataloader)
""",
    ),
    "lightning": (
        "lightning",
        TRAIN
        + """
import lightning
class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = model
    def training_step(self, batch, number):
        said(batch)
        return torch.nn.functional.mse_loss(self.model(batch[0])[:, 0], batch[1])
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
                            enable_progress_bar=False, enable_model_summary=False)
loader = torch.utils.data.DataLoader(data, 8)
trainer.fit(Module(), loader)
kind(loader)
""",
    ),
    "transformers": (
        "transformers",
        """
import transformers
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 1)
    def forward(self, x, labels):
        said((x, labels))
        return {"loss": torch.nn.functional.mse_loss(self.linear(x)[:, 0], labels)}
data = [{"x": torch.full((4,), float(row)), "labels": torch.tensor(row / 20)} for row in range(20)]
class Trainer(transformers.Trainer):
    def _get_train_sampler(self, *given):
        return torch.utils.data.SequentialSampler(data)
settings = transformers.TrainingArguments("out", num_train_epochs=2, per_device_train_batch_size=8, report_to=[],
                                          use_cpu=True, disable_tqdm=True, save_strategy="no")
trainer = Trainer(Model(), settings, train_dataset=data)
trainer.train()
kind(trainer.get_train_dataloader().base_dataloader)
""",
    ),
    "timm": (
        "timm",
        """
import timm.data
from PIL import Image
class Photos(torch.utils.data.Dataset):
    transform = None
    def __len__(self):
        return 20
    def __getitem__(self, index):
        return self.transform(Image.new("RGB", (40, 30), (index * 10, 0, 0))), index
for training in (False, True):
    loader = timm.data.create_loader(Photos(), (3, 32, 32), 8, is_training=training, use_prefetcher=False,
                                     num_workers=1, device=torch.device("cpu"), use_multi_epochs_loader=training)
    for epoch in range(2):
        for images, labels in loader:
            said((images, labels), values=not training)
    kind(loader)
""",
    ),
    "PyTorch Geometric": (
        "torch_geometric",
        """
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
edges = torch.tensor([[0, 1], [1, 0]])
graphs = [Data(x=torch.full((2, 3), float(number)), edge_index=edges, y=torch.tensor([number])) for number in range(20)]
loader = DataLoader(graphs, batch_size=8, num_workers=1)
for epoch in range(2):
    for batch in loader:
        said((batch.x, batch.edge_index, batch.y, batch.batch))
kind(loader)
""",
    ),
    "ultralytics": (
        "ultralytics",
        """
import os
from pathlib import Path
from PIL import Image
for part in ("train", "val"):
    for folder in ("images", "labels"):
        Path("boxes", folder, part).mkdir(parents=True)
    for number in range(8):
        Image.new("RGB", (64, 64), (30 * number, 90, 0)).save(f"boxes/images/{part}/{number}.png")
        Path(f"boxes/labels/{part}/{number}.txt").write_text("0 0.5 0.5 0.4 0.4")
Path("boxes.yaml").write_text(f"path: {Path('boxes').resolve()}\\ntrain: images/train\\nval: images/val\\nnames: [box]")
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
class Trainer(DetectionTrainer):
    def preprocess_batch(self, batch):
        said([batch["img"]], values=False)
        return super().preprocess_batch(batch)
class Validator(DetectionValidator):
    def preprocess(self, batch):
        said([batch["img"], batch["cls"], batch["bboxes"]])
        return super().preprocess(batch)
Trainer.get_validator = lambda self: Validator(self.test_loader, save_dir=self.save_dir, args=self.args)
how = dict(model="yolov8n.yaml", data="boxes.yaml", epochs=1, imgsz=32, batch=4, workers=1, device="cpu", plots=False,
           pretrained=False, amp=False, save=False, verbose=False, project="runs", exist_ok=True)
def loss_names(self):
    self.loss_names = "box_loss", "cls_loss", "dfl_loss"
    return Validator(self.test_loader, save_dir=self.save_dir, args=self.args)
Trainer.get_validator = loss_names
trainer = Trainer(overrides=how)
trainer.train()
kind(trainer.train_loader)
""",
    ),
}


def ran(script: Path, how: list[str], folder: Path) -> tuple[list[str], str]:
    """Return what a script said of its batches, and who read them; raise RuntimeError if it failed."""
    folder.mkdir()
    home = {"YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "true", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, *how, str(script)],
        cwd=folder,
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise RuntimeError(run.stderr[-1500:] or run.stdout[-1500:])
    lines = (folder / "said").read_text().splitlines()
    read_by = {line for line in lines if line.startswith("READ BY")}
    who = "headrace" if read_by and all(" headrace" in line for line in read_by) else "torch"
    return [line for line in lines if line.startswith("BATCH")], who


def compared(name: str, folder: Path) -> str:
    """Return what differs between a library's batches with torch's loader and with headrace's; empty for nothing."""
    script = folder / "train.py"
    script.write_text(HEAD + SCRIPTS[name][1])
    try:
        theirs, _ = ran(script, [], folder / "torch")
        ours, who = ran(script, ["-m", "headrace.torch"], folder / "headrace")
    except RuntimeError as error:
        return f"failed: {error}"
    if who != "headrace":
        return "its loader stayed torch's"
    if not theirs or len(theirs) != len(ours):
        return f"{len(theirs)} batches with torch, {len(ours)} with headrace"
    for number, (one, other) in enumerate(zip(theirs, ours, strict=True)):
        if json.loads(one[6:]) != json.loads(other[6:]):
            return f"batch {number}: {one[6:]} with torch, {other[6:]} with headrace"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(SCRIPTS), choices=list(SCRIPTS), metavar="LIBRARY")
    different = 0
    for name in parser.parse_args().only:
        if importlib.util.find_spec(SCRIPTS[name][0]) is None:
            print(f"{name}: not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            what = compared(name, Path(folder))
        different += bool(what)
        print(f"{name}: {what or 'the same batches'}", flush=True)
    return int(different > 0)


if __name__ == "__main__":
    raise SystemExit(main())
