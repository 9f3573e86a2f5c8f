"""What a project needs: who may do what, and the steps that set it up."""
