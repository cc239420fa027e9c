"""The server: a bundle behind Seldon's protocol, proved before it is ready.

It imports what the slim image has: numpy, onnxruntime, orjson, granian and `canaryflow.bundle`.
"""
