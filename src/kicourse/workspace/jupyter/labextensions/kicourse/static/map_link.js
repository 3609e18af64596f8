// The way back to the course map: a link at the right end of JupyterLab's menu bar.
// JupyterLab loads an extension as a module federation container. This one is small enough to be written by hand:
// `init` is handed the libraries that JupyterLab shares, `get` returns the extension.
(() => {
  let shared;

  async function library(name) {
    const [version] = Object.values(shared[name]);
    return (await version.get())();
  }

  async function activate(app) {
    const { Widget } = await library("@lumino/widgets");
    const { baseUrl } = JSON.parse(document.getElementById("jupyter-config-data").textContent);
    const link = document.createElement("a");
    link.href = `${baseUrl}kicourse`;
    link.target = "kicourse-map";
    link.textContent = "kicourse";
    link.style.cssText = "padding: 0 1em; line-height: var(--jp-private-menu-panel-height); font-weight: 600";
    link.style.color = "var(--jp-ui-font-color1)";
    const widget = new Widget({ node: link });
    widget.id = "kicourse-map-link";
    app.shell.add(widget, "top", { rank: 1000 });
  }

  const extension = { __esModule: true, default: { id: "kicourse:map", autoStart: true, activate } };
  globalThis._JUPYTERLAB ??= {};
  globalThis._JUPYTERLAB.kicourse = {
    init: (libraries) => { shared = libraries; },
    get: async () => () => extension,
  };
})();
