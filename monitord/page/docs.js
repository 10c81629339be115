"use strict";
// Addresses are relative to where this page is, so a proxy may serve us under any path; that path is the server's too.
const root = new URL(".", document.baseURI);
fetch(new URL("v1/openapi.json", root)).then((answer) => answer.json()).then((spec) => window.SwaggerUIBundle({
  spec: { ...spec, servers: [{ url: root.href.replace(/\/$/u, "") }] },
  dom_id: "#reference",
  deepLinking: true,
  validatorUrl: null, // the validator's badge would be fetched from the internet, with this document's address
  tryItOutEnabled: true,
})).catch((error) => { document.getElementById("reference").textContent = `v1/openapi.json: ${error.message}`; });
