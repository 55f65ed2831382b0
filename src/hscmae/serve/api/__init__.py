"""The routes, a module a group; ``models`` says what goes in and comes out."""
