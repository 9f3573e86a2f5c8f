"""What a project must have: who may do what, and the steps that set it up."""
