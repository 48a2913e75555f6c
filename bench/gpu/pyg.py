"""The step of `edge` in PyTorch Geometric: the same graph, weights and loss, forward and backward.

    pyg.py GRAPH MODEL TRAINED.json --edges N [--compile] [--device cpu --quick]

GRAPH and MODEL are files of lawsmith, TRAINED.json is what `lawsmith train --json` printed when it wrote the model.
The error on the held-out slab must be the one printed there. Then steps in f32 and bf16 (autocast) are timed: the graph
is taken in pieces of some receivers, whose gradients add up, as often as makes N edges. Each result is a line of JSON.
"""

import argparse
import json
import sys
import time

try:
    import torch
    from torch_geometric.nn import MessagePassing
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit()

import safetensors_file

# As lawsmith's: of the messages in the loss, of the weights.
L1, DECAY = 1e-2, 1e-8
# Share of the box along z that is held out.
HELD_OUT = 0.2


def network(tensors, part):
    """φe or φv with its weights."""
    layers = []
    for k in range(sum(name.startswith(f"{part}.weight.") for name in tensors)):
        weight, bias = (torch.tensor(tensors[f"{part}.{what}.{k}"]) for what in ("weight", "bias"))
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight.data, layer.bias.data = weight, bias
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


class Network(MessagePassing):
    """Messages on edges, their sum at the receiver, a prediction; the L1 norm of the messages beside it."""

    def __init__(self, tensors, period):
        super().__init__(aggr="add")
        self.edge, self.node = network(tensors, "edge"), network(tensors, "node")
        self.period = period
        # Weights of the receiver's and the sender's positions become those of the receiver's and of the difference,
        # which keeps its digits in bf16.
        first = self.edge[0].weight.data
        features = first.shape[1] // 2
        first[:, :3] += first[:, features : features + 3]

    def forward(self, x, x_receivers, edge_index):
        sums = self.propagate(edge_index, x=(x, x_receivers), size=(len(x), len(x_receivers)))
        # The last column adds up what the messages cost.
        sums, cost = sums[:, :-1], sums[:, -1]
        return self.node(torch.cat([x_receivers, sums.to(x.dtype)], 1)).squeeze(1), cost.sum()

    def message(self, x_i, x_j):
        difference = x_j[:, :3] - x_i[:, :3]
        difference = difference - self.period * torch.round(difference / self.period)
        message = self.edge(torch.cat([x_i, difference, x_j[:, 3:]], 1)).float()
        return torch.cat([message, message.abs().sum(1, keepdim=True)], 1)


class Graph:
    """A graph of halos on a device, cut into pieces of consecutive receivers."""

    def __init__(self, path, device, most_edges):
        tensors, about = safetensors_file.read(path)
        self.about = about
        scales = about["scales"]
        position, features = (torch.tensor(tensors[name]).double() for name in ("position", "features"))
        columns = [position / scales["length"], features[:, :3] / scales["velocity"], features[:, 3:] / scales["mass"]]
        self.x = torch.cat(columns, 1).float().to(device)
        self.target = torch.tensor(tensors["target"]).to(device)
        self.held_out = (position[:, 2] >= about["edge"] * (1 - HELD_OUT)).to(device)
        rows = torch.tensor(tensors["row_start"].astype("int64"))
        sender = torch.tensor(tensors["sender"].astype("int64"))
        self.nodes, self.edges = len(rows) - 1, len(sender)
        self.pieces = []
        begin = 0
        while begin < self.nodes:
            end = max(int(torch.searchsorted(rows, rows[begin] + most_edges, right=True)) - 1, begin + 1)
            degrees = rows[begin + 1 : end + 1] - rows[begin:end]
            receiver = torch.repeat_interleave(torch.arange(end - begin), degrees)
            edge_index = torch.stack([sender[rows[begin] : rows[end]], receiver])
            self.pieces.append((slice(begin, end), edge_index.to(device)))
            begin = end


def loss_of(model, graph, piece, bf16, device):
    """The part of the loss that the receivers of a piece have; their prediction."""
    receivers, edge_index = piece
    with torch.autocast(device, torch.bfloat16, enabled=bf16):
        found, cost = model(graph.x, graph.x[receivers], edge_index)
    error = (found.float() - graph.target[receivers]).abs().sum()
    return error / graph.nodes + L1 * cost / graph.edges, found.float()


def step(model, parameters, graph, bf16, device):
    """Loss and gradient on the whole graph."""
    for parameter in parameters:
        parameter.grad = None
    total = torch.zeros((), device=device)
    for piece in graph.pieces:
        loss, _ = loss_of(model, graph, piece, bf16, device)
        loss.backward()
        total += loss.detach()
    decay = DECAY * sum((parameter**2).sum() for parameter in parameters)
    decay.backward()
    return total + decay.detach()


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def main():
    parser = argparse.ArgumentParser()
    for name in ("graph", "model", "trained"):
        parser.add_argument(name)
    parser.add_argument("--edges", type=int, required=True)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    device = options.device
    if device == "cuda" and not torch.cuda.is_available():
        print("skipped: PyTorch finds no GPU")
        return 0
    torch.manual_seed(0)
    graph = Graph(options.graph, device, 1_000_000)
    tensors, _ = safetensors_file.read(options.model)
    period = graph.about["edge"] / graph.about["scales"]["length"]
    model = Network(tensors, period).to(device)
    parameters = list(model.parameters())

    # The same network on the same graph has the same error, or nothing below is comparable.
    expected = json.load(open(options.trained))["test"]["error"]
    for bf16, tolerance in [(False, 1e-4), (True, 2e-2)]:
        with torch.no_grad():
            found = torch.cat([loss_of(model, graph, piece, bf16, device)[1] for piece in graph.pieces])
        error = (found - graph.target).abs()[graph.held_out].double().mean().item()
        arithmetic = "bf16" if bf16 else "f32"
        print(f"error on the held-out slab, {arithmetic}: {error:.6f} here, {expected:.6f} of lawsmith in f32", flush=True)
        if abs(error / expected - 1) > tolerance:
            print(f"wrong: the errors differ by more than {tolerance:g}")
            return 1

    called = torch.compile(model, dynamic=True) if options.compile else model
    losses = {}
    # Compiling takes most of the time there is: only what a user of autocast would have.
    for bf16 in [True] if options.compile else [False, True]:
        one = lambda: step(called, parameters, graph, bf16, device)
        arithmetic = "bf16" if bf16 else "f32"
        losses[arithmetic] = one().item()
        wait(device)
        times = []
        passes = 1 if options.quick else max(round(options.edges / graph.edges), 1)
        for _ in range(1 if options.quick or not bf16 else 3):
            begun = time.perf_counter()
            for _ in range(passes):
                one()
            wait(device)
            times.append((time.perf_counter() - begun) * options.edges / (passes * graph.edges))
        memory = torch.cuda.max_memory_allocated() if device == "cuda" else None
        line = {
            "peer": "PyTorch Geometric" + (", compiled" if options.compile else ""),
            "size": f"{options.edges} edges, L1, as {passes} passes over {graph.edges} in {len(graph.pieces)} pieces",
            "precision": arithmetic,
            "seconds": sorted(times)[len(times) // 2],
            "loss": losses[arithmetic],
            "memory": memory,
            "torch": torch.__version__,
        }
        print(json.dumps(line), flush=True)
    if len(losses) == 2 and abs(losses["bf16"] / losses["f32"] - 1) > 2e-2:
        print(f"wrong: the losses differ: {losses}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
