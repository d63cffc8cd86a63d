"""ONNX files as they are to be handed on: the graph, and nothing about the machine that wrote it."""

from typing import Any


def cleaned(model: Any) -> Any:
    """An onnx.ModelProto without stack traces, paths and the shapes of inner values; it is changed in place.

    torch's exporter writes for every node where in which source file it came from, and for every inner value a shape,
    which a later change of the graph (quantisation) makes wrong; runtimes infer the shapes for themselves.
    """
    del model.graph.value_info[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    parts = [*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output]
    parts += [node for function in model.functions for node in function.node] + list(model.functions)
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""
    return model
