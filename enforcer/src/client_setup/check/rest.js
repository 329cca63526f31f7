const https = require("node:https");
const asked = https.get({ host: "bigquery.googleapis.com", path: "/bigquery/v2/projects", timeout: 20000 }, (answer) => {
  let text = "";
  answer.on("data", (part) => (text += part));
  answer.on("end", () => console.log(answer.statusCode, text));
});
asked.on("timeout", () => asked.destroy(new Error("no answer within 20 s")));
asked.on("error", (error) => {
  console.log(error.message);
  process.exitCode = 1;
});
