"""HTTP for the requests that come most often, below aiohttp's server and in front of it."""
