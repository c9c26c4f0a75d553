"""Stage `quantize`: weights -> ONNX graphs in fp32 and quantized, each checked against torch."""
