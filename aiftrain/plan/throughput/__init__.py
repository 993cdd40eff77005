"""How long a step takes: products and memory traffic of a layer, collectives on the real links, the pipeline."""
