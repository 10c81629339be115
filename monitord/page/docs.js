"use strict";
// validatorUrl: the validator's badge would be fetched from the internet, with this document's address.
window.SwaggerUIBundle({
  url: "/v1/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  validatorUrl: null,
  tryItOutEnabled: true,
});
