"""What `ship init` is made of: answers, the files that follow from them, and how they are put."""
