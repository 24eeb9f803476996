"""The demonstration: providers as processes, people, a story, and what everybody saw of it. Internal."""
