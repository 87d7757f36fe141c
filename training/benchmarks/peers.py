"""What the benchmark compares this package with.

Each class has the methods of `workers.KerasResfam`, and imports its
library only when it is loaded.
"""

import copy
import os
import time

from training.benchmarks.workers import (
    LEARNING_RATE,
    SGD,
    Absent,
    peak_resident,
    versions,
)
from training.startup import hardware
from training.startup.backend import quiet


class PyTorch:
    """A network in plain PyTorch, of another project or rendered by us."""

    trains = True

    def __init__(self, channels_last, compiled, library="pytorch"):
        self.channels_last, self.compiled = channels_last, compiled
        self.library = library

    def load(self):
        start = time.perf_counter()
        import torch

        from training.benchmarks import torch_networks

        seconds = time.perf_counter() - start
        # Batches of two sizes would otherwise make one general, slower kernel.
        torch._dynamo.config.automatic_dynamic_shapes = False
        torch.backends.cudnn.benchmark = True
        self.torch, self.networks = torch, torch_networks
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        return {
            "import": seconds,
            "versions": versions("torch") | torch_networks.versions(),
            "device": hardware.accelerator("torch"),
        }

    def build(self, builder, arguments, precision):
        torch = self.torch
        self.bfloat16 = precision == "bfloat16"
        find = getattr(self.networks, f"{self.library}_network")
        net = find(builder, arguments)
        if net is None:
            raise Absent(f"{self.library} has nothing like {builder}")
        if self.channels_last:
            net = net.to(memory_format=torch.channels_last)
        self.net = net.to(self.device).train()
        self.optimizer = torch.optim.SGD(
            net.parameters(),
            LEARNING_RATE,
            **SGD,
            fused=True,
        )
        self.call = torch.compile(net) if self.compiled else net
        return {}

    def images(self, x):
        x = self.torch.from_numpy(x).to(self.device, non_blocking=True)
        x = x.permute(0, 3, 1, 2)
        return x if self.channels_last else x.contiguous()

    def first_step(self, x, y):
        self.train(x, y, 1)

    def train(self, x, y, steps):
        torch = self.torch
        start = time.perf_counter()
        for _ in range(steps):
            labels = torch.from_numpy(y).to(self.device, non_blocking=True)
            with torch.autocast(
                self.device, torch.bfloat16, enabled=self.bfloat16
            ):
                logits = self.call(self.images(x))
            loss = torch.nn.functional.cross_entropy(logits.float(), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        loss.item()
        return time.perf_counter() - start

    def to_inference(self):
        torch = self.torch
        net = copy.deepcopy(self.net).eval()
        if self.bfloat16:
            net = net.to(torch.bfloat16)
        self.call = torch.compile(net) if self.compiled else net

    def infer(self, x):
        dtype = self.torch.bfloat16 if self.bfloat16 else None
        with self.torch.no_grad():
            return self.call(self.images(x).to(dtype)).float().cpu().numpy()

    def peak_memory(self):
        if self.device == "cuda":
            return self.torch.cuda.max_memory_allocated()
        return peak_resident()


class OnnxRuntime:
    """The PyTorch network, exported: inference only."""

    trains = False

    def load(self):
        start = time.perf_counter()
        import onnxruntime

        seconds = time.perf_counter() - start
        import onnxscript  # noqa: F401  (the exporter needs it)
        import torch

        from training.benchmarks import torch_networks

        if torch.cuda.is_available() and (
            "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
        ):
            raise Absent("onnxruntime has no CUDA here")
        self.torch, self.networks = torch, torch_networks
        self.onnxruntime = onnxruntime
        return {"import": seconds, "versions": versions("onnxruntime")}

    def build(self, builder, arguments, precision):
        if precision != "float32":
            raise Absent("float32 only")
        net = self.networks.pytorch_network(builder, arguments)
        if net is None:
            raise Absent(f"pytorch has nothing like {builder}")
        self.net, self.sessions = net.eval(), {}
        return {}

    def to_inference(self):
        pass

    def infer(self, x):
        x = x.transpose(0, 3, 1, 2)
        if len(x) not in self.sessions:
            self.sessions[len(x)] = self.session(x)
        return self.sessions[len(x)].run(None, {"images": x})[0]

    def session(self, x):
        program = self.torch.onnx.export(
            self.net,
            (self.torch.from_numpy(x),),
            input_names=["images"],
            dynamo=True,
            verbose=False,
        )
        return self.onnxruntime.InferenceSession(
            program.model_proto.SerializeToString(),
            providers=self.onnxruntime.get_available_providers(),
        )

    def peak_memory(self):
        return None


class Tf2cv:
    """imgclsmob's networks for TensorFlow, which need Keras 2."""

    trains = True

    def load(self):
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        start = time.perf_counter()
        with quiet():
            import tensorflow as tf
            import tf_keras
            from tf2cv.models import wrn_cifar

        self.keras, self.wrn_cifar = tf_keras, wrn_cifar
        seconds = time.perf_counter() - start
        self.gpus = tf.config.list_physical_devices("GPU")
        return {"import": seconds, "versions": versions("tf2cv", "tf_keras")}

    def build(self, builder, arguments, precision):
        if builder != "WideResNet":
            raise Absent(f"tf2cv has nothing like {builder}")
        if precision == "bfloat16":
            self.keras.mixed_precision.set_global_policy("mixed_bfloat16")
        self.net = self.wrn_cifar.get_wrn_cifar(
            classes=10,
            blocks=arguments["depth"],
            width_factor=arguments["width"],
        )
        self.net.compile(
            self.keras.optimizers.SGD(LEARNING_RATE, **SGD),
            self.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        return {}

    def first_step(self, x, y):
        self.train(x, y, 1)

    def train(self, x, y, steps):
        start = time.perf_counter()
        for _ in range(steps):
            self.net.train_on_batch(x, y)
        return time.perf_counter() - start

    def to_inference(self):
        pass

    def infer(self, x):
        return self.net.predict_on_batch(x)

    def peak_memory(self):
        return None if self.gpus else peak_resident()
