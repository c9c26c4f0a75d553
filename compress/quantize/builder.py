"""A graph written node by node: names and weights that are the same on every machine."""

from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import nn

OPSET, IR_VERSION = 20, 10


class GraphBuilder:
    """Nodes and initializers under readable, deterministic names; `scope` goes in front of new ones.

    With `products` every linear map is a MatMul and an Add: what quantizers of linear maps look for.
    """

    def __init__(self, products: bool = False) -> None:
        self.scope, self.products = "", products
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}

    def add(self, op: str, *inputs: str, name: str, outputs: int = 1, **attributes: Any) -> str:
        name = self.scope + name
        names = [name if i == 0 else f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=name, **attributes))
        return names[0]

    def constant(self, name: str, value: NDArray[Any] | np.generic | torch.Tensor) -> str:
        """Raises ValueError where the name stands for another value already."""
        name = self.scope + name
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        tensor = numpy_helper.from_array(np.asarray(array, order="C"), name)
        if self.initializers.setdefault(name, tensor) != tensor:
            raise ValueError(f"{name} is another constant already")
        return name

    def ints(self, *values: int) -> str:
        return self.constant("ints_" + "_".join(map(str, values)).replace("-", "m"), np.array(values, np.int64))

    def linear(self, x: str, linear: nn.Linear, name: str) -> str:
        product = self.add("MatMul", x, self.constant(f"{name}.weight", linear.weight.T), name=f"{name}.product")
        return self.add("Add", product, self.constant(f"{name}.bias", linear.bias), name=name)

    def flat_linear(self, x: str, linear: nn.Linear, name: str) -> str:
        """As `linear`, for (batch, in) alone: one node."""
        if self.products:
            return self.linear(x, linear, name)
        weight, bias = self.constant(f"{name}.weight", linear.weight.T), self.constant(f"{name}.bias", linear.bias)
        return self.add("Gemm", x, weight, bias, name=name)

    def unbiased(self, x: str, linear: nn.Linear | None, name: str, flat: bool = False) -> str:
        """A map without a bias, as `linear` or where `flat` as `flat_linear` has it; x itself where there is none."""
        if linear is None:
            return x
        op = "Gemm" if flat and not self.products else "MatMul"
        return self.add(op, x, self.constant(f"{name}.weight", linear.weight.T), name=name)

    def layer_norm(self, x: str, norm: nn.LayerNorm, name: str) -> str:
        scale, bias = self.constant(f"{name}.scale", norm.weight), self.constant(f"{name}.shift", norm.bias)
        return self.add("LayerNormalization", x, scale, bias, name=name, axis=-1, epsilon=norm.eps)

    def model(
        self,
        inputs: list[onnx.ValueInfoProto],
        outputs: list[onnx.ValueInfoProto],
        name: str = "history_to_top_k",
    ) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, name, inputs, outputs, list(self.initializers.values()))
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, producer_name="slimrec", opset_imports=opset, ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return model
