"""A training step of a stack of small networks in PyTorch, beside `tiny`: vmap over the networks, Adam, as a CUDA graph.

    stack.py [--device cpu --quick]

Each of the networks sees 64 graphs of 4 bodies; sizes and loss are those of `lawsmith bench tiny`. Each result is a line of
JSON. Without a GPU there is no CUDA graph: the step is called.
"""

import argparse
import json
import sys
import time

try:
    import torch
    from torch.func import functional_call, grad, stack_module_state, vmap
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit()

GRAPHS, BODIES, FEATURES, OUTPUTS = 64, 4, 6, 2
DECAY = 1e-8
# Hidden units, messages, weight of their L1 norm.
MODELS = [(300, 100, 1e-2), (128, 2, 0.0)]


def network(*widths):
    layers = []
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


class Network(torch.nn.Module):
    """One step of message passing on complete graphs: prediction, and mean L1 norm of the messages."""

    def __init__(self, hidden, messages):
        super().__init__()
        self.edge = network(2 * FEATURES, hidden, hidden, messages)
        self.node = network(FEATURES + messages, hidden, hidden, OUTPUTS)
        pairs = [(r, s) for r in range(BODIES) for s in range(BODIES) if r != s]
        self.register_buffer("receiver", torch.tensor([r for r, _ in pairs]))
        self.register_buffer("sender", torch.tensor([s for _, s in pairs]))

    def forward(self, x):
        pairs = torch.cat([x[:, self.receiver], x[:, self.sender]], 2)
        messages = self.edge(pairs)
        # Edges are in the order of their receivers.
        sums = messages.reshape(len(x), BODIES, BODIES - 1, -1).sum(2)
        cost = messages.abs().sum(2).float().mean()
        return self.node(torch.cat([x, sums], 2)), cost


class Adam:
    """On stacked parameters, without a word from the host, so that a CUDA graph can hold it."""

    def __init__(self, parameters, device):
        self.m = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.v = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.step = torch.zeros((), device=device)

    def update(self, parameters, gradients):
        self.step += 1
        p, g = list(parameters.values()), [gradients[name] for name in parameters]
        m, v = list(self.m.values()), list(self.v.values())
        torch._foreach_lerp_(m, g, 0.1)
        torch._foreach_mul_(v, 0.999)
        torch._foreach_addcmul_(v, g, g, 0.001)
        root = torch._foreach_sqrt(v)
        torch._foreach_div_(root, torch.sqrt(1 - 0.999**self.step))
        torch._foreach_add_(root, 1e-8)
        change = torch._foreach_div(m, root)
        torch._foreach_mul_(change, -1e-3 / (1 - 0.9**self.step))
        torch._foreach_add_(p, change)


def measure(runs, model, bf16, device, quick):
    hidden, messages, l1 = model
    torch.manual_seed(0)
    networks = [Network(hidden, messages).to(device) for _ in range(runs)]
    parameters, buffers = stack_module_state(networks)
    parameters = {name: p.detach().clone() for name, p in parameters.items()}
    template = networks[0]
    x = torch.randn(runs, GRAPHS, BODIES, FEATURES, device=device)
    y = torch.randn(runs, GRAPHS, BODIES, OUTPUTS, device=device)
    adam = Adam(parameters, device)

    def loss(parameters, buffers, x, y):
        found, cost = functional_call(template, (parameters, buffers), (x,))
        decay = sum((p**2).sum() for p in parameters.values())
        error = (found.float() - y).abs().sum(2).mean()
        # The mean over edges, as lawsmith takes it.
        total = error + l1 * cost + DECAY * decay
        return total, error

    gradient = vmap(grad(loss, has_aux=True), randomness="error")

    def step():
        with torch.autocast(device, torch.bfloat16, enabled=bf16, cache_enabled=False):
            gradients, errors = gradient(parameters, buffers, x, y)
        adam.update(parameters, gradients)
        return errors

    if device == "cuda":
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            before = step().mean().item()
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            errors = step()
        call = graph.replay
    else:
        before = step().mean().item()
        call = step
    times, steps = [], 1 if quick else 100
    for _ in range(1 if quick else 7):
        if device == "cuda":
            torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(steps):
            call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - begun) / steps)
    after = errors.mean().item() if device == "cuda" else step().mean().item()
    if not after < before:
        print(f"wrong: the error does not fall: {before} to {after}")
        sys.exit(1)
    line = {
        "peer": "vmap" + (" in a CUDA graph" if device == "cuda" else ""),
        "size": f"{runs} networks, {BODIES} bodies x {GRAPHS} graphs, hidden {hidden}, {messages} messages, with Adam",
        "precision": "bf16" if bf16 else "f32",
        "seconds": sorted(times)[len(times) // 2],
        "errors": [before, after],
        "torch": torch.__version__,
    }
    print(json.dumps(line), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: PyTorch finds no GPU")
        return
    for runs in [2] if options.quick else [1, 16]:
        for model in MODELS:
            for bf16 in [False, True]:
                measure(runs, model, bf16, options.device, options.quick)


if __name__ == "__main__":
    main()
