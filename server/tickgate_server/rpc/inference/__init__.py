"""The Open Inference Protocol, as Triton extends it, over models in a plain layout."""
