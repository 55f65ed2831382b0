from .folder import export_onnx as export_onnx
from .precision import Precision as Precision
from .runtime import OnnxModel as OnnxModel
