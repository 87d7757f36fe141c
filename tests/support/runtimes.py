"""The programs that run exported networks, each a function of file and images.

They return NumPy arrays. What is imported within is optional.
"""

import numpy as np


def saved_model(path, images):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return loaded.serve(tf.constant(images)).numpy()


def onnx(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    (image,) = session.get_inputs()
    return session.run(None, {image.name: images})[0]


def openvino(path, images):
    import openvino

    return openvino.compile_model(path)(images)[0]


def torch(path, images):
    import torch

    program = torch.export.load(path).module()
    return program(torch.as_tensor(images)).detach().numpy()


def litert(path, images):
    """An image at a time, which all its files take."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    (answer,) = interpreter.get_output_details()
    outputs = []
    for k in range(len(images)):
        interpreter.set_tensor(image["index"], images[k : k + 1])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(answer["index"]))
    return np.concatenate(outputs)


RUNTIMES = {
    "onnx": (onnx, "onnxruntime"),
    "openvino": (openvino, "openvino"),
    "litert": (litert, "ai_edge_litert"),
    "torch": (torch, "torch"),
    "tf_saved_model": (saved_model, "tensorflow"),
}
"""Each format's, and the module that it needs."""
