"""What `ship doctor` looks at: each check reads, and says what it found in one line."""
