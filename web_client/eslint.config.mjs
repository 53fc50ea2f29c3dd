import tseslint from 'typescript-eslint';

const generated = ['**/*.generated.ts'];

/** What the outside world offers and a pure module may not ask for: input comes as arguments, output goes as values. */
const impure = ['Date', 'performance', 'WebSocket', 'fetch', 'setTimeout', 'setInterval', 'self', 'window', 'document', 'crypto', 'caches', 'navigator', 'console', 'globalThis']
  .map((name) => ({ name, message: 'protocol/ and session/ are pure: pass it in.' }));

const runtime = { group: ['onnxruntime-web', 'onnxruntime-web/*', 'onnxruntime-common'], message: 'Only src/worker/ort.ts imports the runtime.' };
const imports = (...patterns) => ({ 'no-restricted-imports': ['error', { patterns: [runtime, ...patterns] }] });

export default tseslint.config(
  { ignores: ['node_modules', ...generated] },
  { files: ['**/*.mjs'], extends: [tseslint.configs.recommended] },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: {
      parserOptions: { project: ['./tsconfig.pure.json', './tsconfig.worker.json', './tsconfig.page.json', './tsconfig.test.json'], tsconfigRootDir: import.meta.dirname },
    },
    rules: {
      ...imports(),
      'no-console': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      // A private constructor property is the shortest honest way to hold a dependency.
      '@typescript-eslint/parameter-properties': 'off',
    },
  },
  {
    files: ['src/protocol/**/*.ts', 'src/session/**/*.ts'],
    rules: {
      'no-restricted-globals': ['error', ...impure],
      'no-restricted-properties': ['error', { object: 'Math', property: 'random', message: 'protocol/ and session/ are pure: pass it in.' }],
      ...imports({ group: ['**/bundle/**', '**/text/**', '**/worker/**', '**/client/**', '**/page/**'], message: 'protocol/ and session/ stand below the rest.' }),
    },
  },
  {
    files: ['src/protocol/**/*.ts'],
    rules: imports({ group: ['**/session/**', '**/bundle/**', '**/text/**', '**/worker/**', '**/client/**', '**/page/**'], message: 'protocol/ stands at the bottom.' }),
  },
  {
    files: ['src/bundle/**/*.ts', 'src/text/**/*.ts'],
    rules: imports({ group: ['**/worker/**', '**/client/**', '**/page/**'], message: 'bundle/ and text/ stand below worker/.' }),
  },
  {
    files: ['src/worker/**/*.ts'],
    rules: imports({ group: ['**/client/**', '**/page/**'], message: 'The engine does not know the page.' }),
  },
  { files: ['src/worker/ort.ts'], rules: { 'no-restricted-imports': ['error', { patterns: [{ group: ['**/client/**', '**/page/**'], message: 'The engine does not know the page.' }] }] } },
  {
    files: ['src/client/**/*.ts'],
    rules: imports({ group: ['**/bundle/**', '**/text/**', '**/page/**', '**/worker/**', '!../worker/engine.worker?worker&url'], message: 'client/ knows the worker by its messages.' }),
  },
  {
    files: ['src/page/**/*.ts'],
    rules: {
      ...imports({ group: ['**/protocol/**', '**/session/**', '**/bundle/**', '**/text/**', '**/worker/**', '**/client/*'], message: 'The page knows the engine as others do: by src/client, and the types of src/api.ts.' }),
      'no-restricted-globals': ['error', { name: 'Worker', message: 'src/client starts the engine.' }],
    },
  },
);
