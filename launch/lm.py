"""Train a small GPT, sharded with FSDP2, on the source text of Python's standard library.

torchnet launch lm.py, torchrun --nproc-per-node 2 lm.py, or python lm.py. Needs only torch 2.7."""

import argparse
import io
import os
import re
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does; more do not help a model this small
with warnings.catch_warnings():  # importing torch warns if NumPy is missing, which is not needed here
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    import torch
if torch.__version__ < "2.7.0a0":
    raise SystemExit(f"lm.py: FSDP2 on CPUs needs torch 2.7, not {torch.__version__}: pip install -U torch")

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

CONTEXT, VOCABULARY, DIM, BLOCKS = 64, 2048, 128, 3  # tokens seen at once, tokens known, size of the model
EVERY = 20  # steps between two lines, and between two checkpoints


def corpus(device: torch.device) -> tuple[Tensor, Tensor, list[bytes]]:
    """Return the training tokens, the tokens of a held-out tenth of the files, and the vocabulary: frequent words,
    indents and operators, and all single bytes, so that any text can be encoded."""
    texts = [path.read_bytes() for path in sorted(Path(os.__file__).parent.glob("*.py"))]
    if sum(map(len, texts)) < 1_000_000:
        raise SystemExit(f"lm.py: too little source beside {os.__file__}; use a Python with .py files there")
    split = re.compile(rb" ?[A-Za-z]+|\n *| ?[^\w\s]+|.", re.DOTALL).findall
    training = [piece for number, text in enumerate(texts) if number % 10 != 9 for piece in split(text)]
    held_out = [piece for text in texts[9::10] for piece in split(text)]
    frequent = Counter(piece for piece in training if len(piece) > 1).most_common(VOCABULARY - 256)
    vocabulary = [bytes([value]) for value in range(256)] + [piece for piece, _ in frequent]
    ids = {piece: (number,) for number, piece in enumerate(vocabulary)}
    # A rare piece is encoded as its bytes, whose ids are their values.
    encoded = [[i for piece in part for i in ids.get(piece, piece)] for part in (training, held_out)]
    return torch.tensor(encoded[0], device=device), torch.tensor(encoded[1], device=device), vocabulary


class GPT(nn.Module):
    """Map tokens (batch, time) to the logits of the next tokens (batch, time, VOCABULARY)."""

    def __init__(self) -> None:
        super().__init__()
        kind: Any = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
        blocks = [nn.TransformerEncoderLayer(DIM, DIM // 32, 4 * DIM, **kind) for _ in range(BLOCKS)]
        self.token, self.position = nn.Embedding(VOCABULARY, DIM), nn.Parameter(torch.zeros(CONTEXT, DIM))
        self.blocks = nn.ModuleList(blocks)
        self.norm, self.head = nn.LayerNorm(DIM), nn.Linear(DIM, VOCABULARY)
        nn.init.normal_(self.token.weight, std=0.02)
        for block in blocks:  # blocks that start as the identity learn faster
            nn.init.zeros_(block.self_attn.out_proj.weight)
            nn.init.zeros_(block.linear2.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        x = self.token(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, src_mask=mask, is_causal=True)
        return self.head(self.norm(x))


def load(path: Path | None) -> dict[str, Any]:
    """Return the checkpoint, or {}. Rank 0 reads the file, which others may not see, and broadcasts it."""
    data = bytearray(path.read_bytes() if path and path.exists() and dist.get_rank() == 0 else b"")
    size = torch.tensor(len(data))
    dist.broadcast(size, src=0)
    if size:  # as bytes, into the memory of `data`: the collectives for objects need NumPy
        data = data or bytearray(int(size))
        dist.broadcast(torch.frombuffer(data, dtype=torch.uint8), src=0)
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True) if size else {}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small GPT on the source of Python's library.")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch-size", type=int, default=8, help=f"{CONTEXT} tokens each, per rank and step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, help=f"save every {EVERY} steps, and resume from it")
    args = parser.parse_args()
    device, backend = torch.device("cpu"), "gloo"
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) <= torch.cuda.device_count():  # one GPU per process
        device, backend = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))), "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    alone: Any = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    dist.init_process_group(backend, **alone)
    rank, world = dist.get_rank(), dist.get_world_size()
    training, held_out, vocabulary = corpus(device)
    torch.manual_seed(args.seed)  # every rank builds the same model and keeps its shard
    model = GPT().to(device)
    mesh = dist.init_device_mesh(device.type, (world,))
    for module in [*model.blocks, model]:  # a block's weights are gathered when it runs
        fully_shard(module, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.1, fused=True)
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)  # unsharded, on rank 0 only
    if state := load(args.checkpoint):
        set_state_dict(model, optimizer, **state["parts"], options=whole)

    def loss_of(windows: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())

    since = time.perf_counter()
    for step in range(state.get("steps", 0), args.steps):
        optimizer.param_groups[0]["lr"] = 4e-3 * min((step + 1) / 30, 1 - step / args.steps)  # up, then down
        random = torch.Generator().manual_seed(args.seed + step * world + rank)
        starts = torch.randint(len(training) - CONTEXT, (args.batch_size, 1), generator=random)
        loss = loss_of(training[starts + torch.arange(CONTEXT + 1)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % EVERY == 0:
            dist.all_reduce(mean := loss.detach() / world)
            speed = EVERY * world * args.batch_size * CONTEXT / (time.perf_counter() - since)
            if rank == 0:
                print(f"step {step + 1} of {args.steps}: loss {mean:.3f}, {speed:.0f} tokens/s", flush=True)
            if args.checkpoint:
                weights, moments = get_state_dict(model, optimizer, options=whole)
                parts = {"model_state_dict": weights, "optim_state_dict": moments}
                if rank == 0:  # written beside it and renamed, so that a kill leaves the old file
                    args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
                    torch.save({"steps": step + 1, "parts": parts}, f"{args.checkpoint}.new")
                    os.replace(f"{args.checkpoint}.new", args.checkpoint)
            since = time.perf_counter()

    torch.set_grad_enabled(False)
    dist.all_reduce(mean := loss_of(held_out.unfold(0, CONTEXT + 1, CONTEXT + 1)[rank::world][:64]) / world)
    weights, _ = get_state_dict(model, (), options=whole)
    if rank == 0:
        print(f"held-out loss {mean:.3f}")
        model, tokens = GPT(), [vocabulary.index(b"\n"), vocabulary.index(b"def")]  # unsharded
        model.load_state_dict(weights)
        for _ in range(150):  # sampled from the 40 most likely
            best = model(torch.tensor([tokens[-CONTEXT:]]))[0, -1].topk(40)
            tokens.append(int(best.indices[torch.multinomial((best.values / 0.8).softmax(0), 1)]))
        print(b"".join(vocabulary[token] for token in tokens).decode("ascii", "backslashreplace"), flush=True)
    dist.barrier(device_ids=[device.index] if device.type == "cuda" else None)  # wait for rank 0
    dist.destroy_process_group()
    # Torch's caches of the mesh hold the group, so this does not end Gloo's threads. They need the interpreter for a
    # moment to release their tensors; a process that exits earlier may abort.
    time.sleep(0.1)


if __name__ == "__main__":
    main()
