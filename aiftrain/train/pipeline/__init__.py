"""Pipeline parallelism: stages of layers that hand micro-batches on, in the order of DeepSpeed's schedules."""
