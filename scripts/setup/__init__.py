"""Roles and permissions, and the steps that set a project up."""
