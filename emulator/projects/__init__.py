"""Projects as Resource Manager and Service Usage have them: numbers, and which APIs are enabled."""
