"""Projects as Resource Manager and Service Usage know them: numbers and enabled APIs."""
