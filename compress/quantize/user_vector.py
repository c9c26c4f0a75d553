"""A history graph that also says the user's vector, for items that its table does not have."""

import onnx
from onnx import TensorProto, helper

from deploy.ranker import USER_VECTOR


def with_user_vector(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same nodes, and the vector that is scored against the item table as an output: float32 (batch, dim).

    A mix has no such vector: its graph stays as it is. ONNX Runtime computes nothing for an output nobody asks for but
    this one cast, which is none in fp32.
    """
    graph = model.graph
    made = {name for node in graph.node for name in node.output}
    user = next((name for name in ("user_projected", "user") if name in made), None)
    if user is None or any(output.name == USER_VECTOR for output in graph.output):
        return model
    graph.node.append(helper.make_node("Cast", [user], [USER_VECTOR], name=USER_VECTOR, to=TensorProto.FLOAT))
    graph.output.append(helper.make_tensor_value_info(USER_VECTOR, TensorProto.FLOAT, ["batch", "dim"]))
    onnx.checker.check_model(model)
    return model
