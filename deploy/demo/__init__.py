"""The line that `docker compose up` starts: simulated cameras, and the prompt pack of their products."""
