"""Single particles: networks that infer poses, how good the poses are, and the maps they make."""
