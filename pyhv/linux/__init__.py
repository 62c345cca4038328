"""Linux made easy: a command inside a kernel, with this machine's files as its root."""
