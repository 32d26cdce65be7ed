// Lets TypeScript know what Vite makes of a style sheet.
declare module "*.css";
