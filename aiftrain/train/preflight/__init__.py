"""The checks of a job's first minute: is every node what the plan says, and as good as its peers?"""
