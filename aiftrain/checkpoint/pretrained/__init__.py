"""Published weights in Hugging Face's form, read as if they were a checkpoint of ours."""
