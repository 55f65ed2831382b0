"""A fitted method in a form that other programs run: ONNX graphs that take features as extracted (extra ``onnx``)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
