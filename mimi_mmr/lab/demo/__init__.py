"""The demonstration: providers as processes, people, a story, and a report on what each party saw. Internal."""
