"""Records some steps with torch's profiler, and tells where their time went."""
