SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  filter: true,
  validatorUrl: null, // By default a server of Swagger's is asked.
});
